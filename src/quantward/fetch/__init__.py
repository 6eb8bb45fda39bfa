"""Published data sets by name: from their sources, or from copies at hand, to DATA folders with groups."""

from quantward.fetch.fetching import SETS, Listed, fetch, listed, where
from quantward.fetch.values import Fetched, File, Got, Item, Source

__all__ = ["SETS", "Fetched", "File", "Got", "Item", "Listed", "Source", "fetch", "listed", "where"]
