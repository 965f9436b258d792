"""Files on any pyarrow filesystem: a path, s3://, gs://, file://."""

from .files import delete_files, file_size, list_entries, list_files, read_file, write_file
from .location import Location, locate, shown
from .ranges import RangeReader

__all__ = [
    "Location",
    "RangeReader",
    "delete_files",
    "file_size",
    "list_entries",
    "list_files",
    "locate",
    "read_file",
    "shown",
    "write_file",
]
