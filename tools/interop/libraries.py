"""A process of an original library's environment, started when first asked and again after a crash."""
import json
import pathlib
import subprocess
import tempfile

WORKER = pathlib.Path(__file__).resolve().with_name("worker.py")
LAST_LINES = 5


class Library:
    def __init__(self, python):
        self._python = python  # a function: environments are made only if a case needs them
        self._process = None
        self._log = None

    def versions(self):
        """Of the packages, or nothing if no case needed the environment."""
        if self._log is None:
            return {}
        out = subprocess.run([self._python(), WORKER, "--versions"], capture_output=True, text=True)
        return json.loads(out.stdout or "{}")

    def ask(self, request):
        if self._process is None:
            self._start()
        self._log.seek(0)
        self._log.truncate()
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._process = None
        self._log.seek(0)
        last = " | ".join(self._log.read().splitlines()[-LAST_LINES:])
        return {"error": f"the library's process ended: {last}"}

    def _start(self):
        if self._log is None:
            self._log = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen([self._python(), WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=self._log, text=True)
