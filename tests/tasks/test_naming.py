import random

from tasks.naming import WORDS, draw_names, draw_pairs, draw_script_name, is_held_out, script_name


def test_held_out_episodes_have_names_that_no_training_episode_has():
    train, held_out = (
        {pair for seed in range(300) for pair in draw_pairs(random.Random(seed), 20, held_out=split)}
        for split in (False, True)
    )
    assert train.isdisjoint(held_out)
    assert {frozenset(pair.split("_")) for pair in train}.isdisjoint(frozenset(pair.split("_")) for pair in held_out)
    assert {word for pair in held_out for word in pair.split("_")} <= {
        word for pair in train for word in pair.split("_")
    }


def test_names_are_a_function_of_the_seed_and_share_no_word():
    assert draw_names(random.Random(3)) == draw_names(random.Random(3))
    assert draw_names(random.Random(3)) != draw_names(random.Random(4))
    names = draw_names(random.Random(5))
    script, data = names.script.removeprefix("run_").removesuffix(".py"), names.train_file.split("_")[1:3]
    assert len({*names.project.split("_"), *data, *script.split("_")}) == 6


def test_a_new_script_shares_no_word_with_the_names_that_are_there():
    free = next(f"{one}_{two}" for one in WORDS for two in WORDS if one < two and is_held_out(f"{one}_{two}"))
    taken = [script_name(word) for word in WORDS if word not in free.split("_")]
    drawn = draw_script_name(random.Random(0), taken, held_out=True)
    assert drawn in {script_name(free), script_name("_".join(reversed(free.split("_"))))}
