"""The virtual environments of the original libraries, outside the tree."""
import os
import pathlib
import subprocess
import sys
import venv

HERE = pathlib.Path(__file__).resolve().parent


def default_folder():
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "nibble-interop"


def pip(python, *arguments):
    subprocess.run([python, "-m", "pip", "install", "--quiet", *arguments], check=True)


def make(folder, name, install):
    """python of folder/name, which `install` fills once; a half-made one is filled again."""
    home = folder / name
    python, done = home / "bin" / "python", home / "complete"
    if not done.exists():
        print(f"making {home} (once; several GB, minutes)", file=sys.stderr)
        venv.create(home, with_pip=True)
        install(python)
        done.touch()
    return python


def main_python(folder):
    def install(python):
        pip(python, "-r", HERE / "requirements.txt")
        pip(python, "--no-build-isolation", "-r", HERE / "requirements-gptqmodel.txt")

    return make(folder, "main", install)


def autoawq_python(folder):
    main = main_python(folder)

    def install(python):
        query = "import sysconfig; print(sysconfig.get_path('purelib'))"
        shared, own = (subprocess.run([p, "-c", query], check=True, capture_output=True, text=True).stdout.strip()
                       for p in (main, python))
        # Last on the path: what is installed here comes first.
        (pathlib.Path(own) / "zz_main.pth").write_text(f"import sys; sys.path.append({shared!r})\n")
        pip(python, "--no-deps", "-r", HERE / "requirements-autoawq.txt")

    return make(folder, "autoawq", install)
