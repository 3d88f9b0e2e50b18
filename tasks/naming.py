"""Surface names of an episode, drawn anew for each so that an agent must read them, not remember them.

Files are named by a fixed word, an underscore and a drawn word: so the drawn part is the same tokens after a space as
inside the quotes of a JSON string, and copying it is copying.
"""

import random
from dataclasses import dataclass

# No word is in both lists: the names of held-out episodes are new to a trained policy.
TRAIN_WORDS = (
    "amber anchor apple arrow autumn bamboo basil beacon birch bridge bronze canyon cedar cherry circle clover "
    "cobalt comet copper coral cotton crystal delta desert dune eagle echo ember falcon fern flint forest fossil "
    "garden garnet ginger glacier granite harbor hazel heron indigo island ivory jade jasmine jungle kettle "
    "lagoon lantern lemon lilac linen lotus maple marble meadow mint mirror moss nectar night north oak ocean "
    "olive onyx opal orchid otter palm pearl pebble pine planet plum pond quartz rabbit rain raven reef ribbon "
    "ridge river robin ruby saffron sage sail salmon shadow shell silver sparrow spring stone storm summer sunset "
    "temple thunder tiger topaz tulip valley velvet violet walnut water willow winter wolf zephyr"
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


SYLLABLES = tuple(consonant + vowel for consonant in "bdfghjklmnprstvz" for vowel in "aeiou")
MADE_SHARE = 0.5  # of the names in training episodes that are no word at all


def draw_words(rng: random.Random, count: int, heldout: bool = False) -> list[str]:
    """Returns distinct words; half of those of training episodes are made of syllables, too many to be learnt."""
    if heldout:
        return rng.sample(HELDOUT_WORDS, count)
    words: dict[str, None] = {}
    while len(words) < count:
        made = "".join(rng.choices(SYLLABLES, k=rng.choice((2, 3))))
        word = made if rng.random() < MADE_SHARE else rng.choice(TRAIN_WORDS)
        if word not in HELDOUT_WORDS:
            words[word] = None
    return list(words)


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
