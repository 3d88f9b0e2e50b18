"""Surface names of an episode, drawn anew for each so that an agent must read them, not remember them.

Files are named by a fixed word, an underscore and a drawn word: so the drawn part is the same tokens after a space as
inside the quotes of a JSON string, and copying it is copying. `vocabulary_text` lets a tokenizer that is trained from
scratch know all of these words, as a pretrained one would: that a name is new then means that no training text had it.
"""

import random
from dataclasses import dataclass

# No word is in both lists: the names of held-out episodes are new to a trained policy.
TRAIN_WORDS = (
    "almond amber anchor anvil apple arrow aspen atlas autumn azure bagel bamboo banjo barrel basil basin beacon "
    "birch bishop blaze bonsai boulder bramble bridge bronze brook bubble butter candor canyon carbon castle "
    "cedar cello chalk chapel cherry circle clover cobalt cobble coconut column comet compass cookie copper copse "
    "coral corner cosmos cotton cradle crater cricket crown crystal cypress daisy dawn delta denim desert diamond "
    "dingo domino dragon drum dune eagle easel echo eclipse elbow ember emerald engine fable falcon fern ferry "
    "fiddle flame flint flute forest forge fossil fountain gable garden garnet gazelle geyser ginger giraffe "
    "glacier goblet granite grape gravel guitar hammer harbor harp hawk hazel helmet heron hickory honey hornet "
    "iceberg iguana indigo inkwell island ivory jade jaguar jasmine jigsaw jungle kayak kernel kettle kite koala "
    "ladder lagoon lantern lark lemon lemur lichen lilac lime linen lizard locket lotus lynx magma mango mantle "
    "maple marble meadow meteor mint mirror mocha monsoon mosaic moss mustard nebula nectar needle night north "
    "nugget oak oasis oboe ocean olive olivine onyx opal orchid otter oyster paddle palm papaya parrot pasture "
    "peach pearl pebble pelican pepper petal piano pilot pine pixel planet plaza plum pond poppy prairie prism "
    "pumpkin quartz rabbit rain raven reef ribbon ridge river robin ruby saffron sage sail salmon shadow shell "
    "silver sparrow spring stone storm summer sunset temple thunder tiger topaz tulip valley velvet violet walnut "
    "water willow winter wolf zephyr"
).split()
HELDOUT_WORDS = (
    "acorn badger barley candle cactus dolphin drift elm feather frost galaxy hollow iris juniper kiwi lavender "
    "magnet nutmeg orbit panda quill rocket saturn tundra umber vapor wagon yarrow zebra cinder"
).split()


@dataclass(frozen=True)
class Names:
    """The names one episode goes by.

    Attributes:
        project: what the research problem is called.
        train_file: training data, with the target.
        test_file: test data, without the target.
        script: the initial script.
    """

    project: str
    train_file: str
    test_file: str
    script: str


def draw_words(rng: random.Random, count: int, heldout: bool = False) -> list[str]:
    """Returns distinct words for the names of one episode."""
    return rng.sample(HELDOUT_WORDS if heldout else TRAIN_WORDS, count)


def draw_names(rng: random.Random, heldout: bool = False) -> Names:
    """Returns names for one episode; held-out episodes use words that no training episode has."""
    project, data, script = draw_words(rng, 3, heldout)
    train_file, test_file = data_names(data)
    return Names(project=project, train_file=train_file, test_file=test_file, script=script_name(script))


def script_name(word: str) -> str:
    """Returns the name of the script that goes by `word`."""
    return f"run_{word}.py"


def data_names(word: str) -> tuple[str, str]:
    """Returns the names of the training and test data that go by `word`."""
    return f"data_{word}_train.csv", f"data_{word}_test.csv"


def draw_script_name(rng: random.Random, taken: frozenset[str], heldout: bool = False) -> str:
    """Returns a script name that is not in `taken`."""
    words = draw_words(rng, len(taken) + 1, heldout)
    return next(name for word in words if (name := script_name(word)) not in taken)


def vocabulary_text() -> str:
    """Returns the names of all words, training and held-out ones, for the training of a tokenizer."""
    return "\n".join(name for word in (*TRAIN_WORDS, *HELDOUT_WORDS) for name in (script_name(word), *data_names(word)))
