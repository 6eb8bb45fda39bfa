"""Images in: folder, CSV, npz, DICOM -> Dataset; checks for leaks and faults; folds; the toy set."""

from quantward.data._flaws import Flaw
from quantward.data._images import decode, read_image
from quantward.data.cache import batches, cache, default_folder
from quantward.data.check import Report, check
from quantward.data.dataset import open_dataset, subset, with_classes
from quantward.data.distinct import Distinct, distinct, leak_free, link_groups, with_split, write_split
from quantward.data.folds import SHARES, load_fold, make_folds, published_fold, save_fold, split, verify_fold
from quantward.data.toy import make_toy

__all__ = [
    "SHARES",
    "Distinct",
    "Flaw",
    "Report",
    "batches",
    "cache",
    "check",
    "decode",
    "default_folder",
    "distinct",
    "leak_free",
    "link_groups",
    "load_fold",
    "make_folds",
    "make_toy",
    "open_dataset",
    "published_fold",
    "read_image",
    "save_fold",
    "split",
    "subset",
    "verify_fold",
    "with_classes",
    "with_split",
    "write_split",
]
