import random

from tasks.naming import HELDOUT_WORDS, TRAIN_WORDS, draw_names, draw_script_name, draw_words, script_name


def test_heldout_episodes_have_names_that_no_training_episode_has():
    assert set(TRAIN_WORDS).isdisjoint(HELDOUT_WORDS)
    for seed in range(300):
        assert set(draw_words(random.Random(seed), 20)).isdisjoint(HELDOUT_WORDS)
        assert set(draw_words(random.Random(seed), 20, heldout=True)) <= set(HELDOUT_WORDS)


def test_names_are_a_function_of_the_seed_and_distinct():
    assert draw_names(random.Random(3)) == draw_names(random.Random(3))
    assert draw_names(random.Random(3)) != draw_names(random.Random(4))
    names = draw_names(random.Random(5))
    script, data = names.script.removeprefix("run_").removesuffix(".py"), names.train_file.split("_")[1]
    assert len({names.project, data, script}) == 3


def test_a_new_script_never_takes_a_name_that_is_there():
    taken = frozenset(script_name(word) for word in HELDOUT_WORDS[:-1])
    assert draw_script_name(random.Random(0), taken, heldout=True) == script_name(HELDOUT_WORDS[-1])
