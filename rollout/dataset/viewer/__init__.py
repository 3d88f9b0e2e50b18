"""A page to look at trajectories: `write_page` writes one HTML file that needs no other file and no network."""

from rollout.dataset.viewer.collection_page import Collection, find_collection, write_collection_page
from rollout.dataset.viewer.page import write_page

__all__ = ["Collection", "find_collection", "write_collection_page", "write_page"]
