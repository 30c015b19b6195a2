"""What survives a power cut: contents by a sync of the file, names by one of the folder that holds them."""

import errno
import fcntl
import os
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WHOLE = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone leaves the data in the memory of the drive
_CANNOT = {errno.EINVAL, errno.ENOTSUP}  # some network file systems know no sync of a folder


def sync(handle: int) -> None:
    """Make the content of an open file durable; raises OSError."""
    if _WHOLE is not None:
        try:
            fcntl.fcntl(handle, _WHOLE)
        except OSError:  # a file system that does not know it
            os.fsync(handle)
    else:
        os.fsync(handle)


def sync_folder(folder: Path | int) -> None:
    """Make the names in a folder durable, given as a path or an open handle; raises OSError."""
    handle = folder if isinstance(folder, int) else os.open(folder, _FOLDER)
    try:
        sync(handle)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    finally:
        if handle != folder:
            os.close(handle)


def sync_chain(folder: Path, root: Path) -> None:
    """Make the name of a folder durable, and those of the folders around it up to `root`; raises OSError."""
    while folder != root and root in folder.parents:
        folder = folder.parent
        sync_folder(folder)


def write_synced(path: Path, data: bytes) -> None:
    """Write a whole file and make its content durable, but not its name; raises OSError."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        sync(file.fileno())
