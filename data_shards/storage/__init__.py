"""Files on any pyarrow filesystem: a path, s3://, gs://, file://."""

from data_shards.storage.files import delete_files, file_size, list_files, list_folder, read_file, write_file
from data_shards.storage.location import Location, locate, shown
from data_shards.storage.ranges import RangeReader

__all__ = [
    "Location", "RangeReader", "delete_files", "file_size", "list_files", "list_folder", "locate", "read_file", "shown",
    "write_file",
]  # fmt: skip
