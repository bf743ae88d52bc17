"""Data sets, one file a source, and their way to the device: `Source` -> `make_split` -> `search_loaders` or `final_loaders`."""

from supernet.data.augment import Augment, Normalise
from supernet.data.base import DataError, Images, Part, Source
from supernet.data.loader import FinalLoaders, Forever, Loader, SearchLoaders, final_loaders, search_loaders, test_loader
from supernet.data.split import Split, make_split

__all__ = [
    "Augment",
    "DataError",
    "FinalLoaders",
    "Forever",
    "Images",
    "Loader",
    "Normalise",
    "Part",
    "SearchLoaders",
    "Source",
    "Split",
    "final_loaders",
    "make_split",
    "search_loaders",
    "test_loader",
]
