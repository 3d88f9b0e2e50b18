"""Surface names: the file and project names of an episode, drawn for each so that an agent must read its context.

A name is a pair of known words, as in `run_heron_topaz.py`. A word after an underscore is the same token in a sentence
and in a quoted JSON string, so copying a name means copying its tokens. Some pairs are reserved for held-out episodes:
a trained policy knows every word of such a name but has never seen the name.
"""

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

WORDS = (
    "acorn almond amber anchor anvil apple arrow aspen atlas autumn azure badger bagel bamboo banjo barley barrel "
    "basil basin beacon birch bishop blaze bonsai boulder bramble bridge bronze brook bubble butter cactus candle "
    "candor canyon carbon castle cedar cello chalk chapel cherry cinder circle clover cobalt cobble coconut "
    "column comet compass cookie copper copse coral corner cosmos cotton cradle crater cricket crown crystal "
    "cypress daisy dawn delta denim desert diamond dingo dolphin domino dragon drift drum dune eagle easel echo "
    "eclipse elbow elm ember emerald engine fable falcon feather fern ferry fiddle flame flint flute forest forge "
    "fossil fountain frost gable galaxy garden garnet gazelle geyser ginger giraffe glacier goblet granite grape "
    "gravel guitar hammer harbor harp hawk hazel helmet heron hickory hollow honey hornet iceberg iguana indigo "
    "inkwell iris island ivory jade jaguar jasmine jigsaw jungle juniper kayak kernel kettle kite kiwi koala "
    "ladder lagoon lantern lark lavender lemon lemur lichen lilac lime linen lizard locket lotus lynx magma "
    "magnet mango mantle maple marble meadow meteor mint mirror mocha monsoon mosaic moss mustard nebula nectar "
    "needle night north nugget nutmeg oak oasis oboe ocean olive olivine onyx opal orbit orchid otter oyster "
    "paddle palm panda papaya parrot pasture peach pearl pebble pelican pepper petal piano pilot pine pixel "
    "planet plaza plum pond poppy prairie prism pumpkin quartz quill rabbit rain raven reef ribbon ridge river "
    "robin rocket ruby saffron sage sail salmon saturn shadow shell silver sparrow spring stone storm summer "
    "sunset temple thunder tiger topaz tulip tundra umber valley vapor velvet violet wagon walnut water willow "
    "winter wolf yarrow zebra zephyr"
).split()
NUMBERS = {word: number for number, word in enumerate(WORDS)}
HELDOUT_EVERY = 8  # one pair in this many is held out


@dataclass(frozen=True)
class Names:
    """The surface names of one episode.

    Attributes:
        project: The name of the research problem.
        train_file: The file of training data, with the target.
        test_file: The file of test data, without the target.
        script: The initial script.
    """

    project: str
    train_file: str
    test_file: str
    script: str


def is_held_out(pair: str) -> bool:
    """Return whether `pair`, such as `heron_topaz`, is reserved for held-out episodes."""
    return sum(NUMBERS[word] for word in pair.split("_")) % HELDOUT_EVERY == 0


def draw_pairs(rng: random.Random, count: int, held_out: bool = False, taken: Iterable[str] = ()) -> list[str]:
    """Return `count` pairs of words for the names of one episode.

    No word occurs twice or in one of the names in `taken`.
    """
    pairs: list[str] = []
    used = set(re.findall(r"[a-z]+", " ".join(taken)))
    while len(pairs) < count:
        words = rng.sample(WORDS, 2)
        pair = "_".join(words)
        if used.isdisjoint(words) and is_held_out(pair) == held_out:
            used.update(words)
            pairs.append(pair)
    return pairs


def draw_names(rng: random.Random, held_out: bool = False) -> Names:
    """Return names for one episode; held-out episodes use pairs that no training episode uses."""
    project, data, script = draw_pairs(rng, 3, held_out)
    train_file, test_file = data_names(data)
    return Names(project=project, train_file=train_file, test_file=test_file, script=script_name(script))


def script_name(pair: str) -> str:
    """Return the name of the script for `pair`."""
    return f"run_{pair}.py"


def data_names(pair: str) -> tuple[str, str]:
    """Return the names of the training and test data for `pair`."""
    return f"data_{pair}_train.csv", f"data_{pair}_test.csv"


def draw_script_name(rng: random.Random, taken: Iterable[str], held_out: bool = False) -> str:
    """Return the name of a script that shares no word with the names in `taken`."""
    return script_name(*draw_pairs(rng, 1, held_out, taken))


def vocabulary_text() -> str:
    """Return text that uses every word in names, so that a tokenizer trained on it knows the words as tokens."""
    return "\n".join(f"run_{word}.py data_{word}_train.csv data_{word}_test.csv" for word in WORDS)
