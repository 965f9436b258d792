"""What tells one version of this code from another."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

from data_shards.version import OF_A_RUN, code_digest

ROOT = Path(__file__).parents[3]


def test_the_digest_is_that_of_the_code_wherever_it_lies(tmp_path: Path) -> None:
    # As Ray unpacks the packages that it sends: each in a folder of its own.
    for package in OF_A_RUN:
        shutil.copytree(ROOT / package, tmp_path / f"of-{package}" / package)
    shown = f"import sys; sys.path[:0] = {[str(folder) for folder in tmp_path.iterdir()]}; from data_shards import version; "
    shown += "print(version.__file__, version.code_digest(), sep=chr(10))"

    def there() -> str:
        command = [sys.executable, "-I", "-c", shown]
        file, digest = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        assert file.startswith(str(tmp_path))
        return digest

    assert there() == code_digest()
    (tmp_path / "of-nla_cyclegan/nla_cyclegan/__init__.py").write_text("x = 1\n")
    assert there() != code_digest()


def test_a_worker_has_the_digest_of_what_it_imported_not_of_what_is_edited_later() -> None:
    code_digest.cache_clear()
    runpy.run_path(str(ROOT / "cluster/training/loop.py"))
    assert code_digest.cache_info().currsize == 1
