"""What the launch scripts are run with: a PATH of stubs that only note how they were called."""

import shutil
import subprocess
import time
from pathlib import Path

from interestyle_jax.json_file import as_json

ROOT = Path(__file__).resolve().parents[2]
GPU, TPU, SLURM, GKE, POD = (
    f"launch/{name}"
    for name in ("gpu_node.sh", "tpu_pod.sh", "slurm.sbatch", "gke/submit.sh", "gke/pod.sh")
)
# What the scripts may use of a system. Nothing else is on their PATH: a real gcloud is never run.
TOOLS = (
    *("awk", "bash", "cat", "date", "df", "dirname", "env", "grep", "gzip", "hostname", "ln"),
    *("mkdir", "mktemp", "rm", "sed", "seq", "sleep", "tar", "tee", "touch", "tr", "true", "wc"),
)
CONFIG = "--config=configs/demo.py"
# Of a stub's body: what a training does at SIGTERM, and twenty seconds of work.
SAVES = "trap 'echo saved; exit 0' TERM"
LASTS = "for i in {1..200}; do sleep 0.1; done"
# As a run's directory has it; read by a shell script, which knows its indentation.
COMPLETED = as_json({"status": "completed", "error": None})
CPU = ("--platform=cpu", "--min-free=0", "--pause=0")
NEEDED = {
    GPU: [CONFIG, "--workdir=WORK"],
    TPU: ["--name=pod", "--zone=z-a", "--accelerator=v5litepod-16", CONFIG, "--workdir=WORK"],
    SLURM: [CONFIG, "--workdir=WORK"],
    GKE: [
        *("--name=run", "--image=registry/image", "--claim=disk", "--mount=/work", CONFIG),
        *("--workdir=/work/run", "--gpus=8", "--gpu-type=nvidia-h100-80gb"),
    ],
}

# A command other than train, and what it is called with.
JOB = ["invert", "--weights=w", "--input=a folder", "--out=WORK"]
PLACES = {
    GPU: [],
    TPU: ["--name=pod", "--zone=z-a", "--accelerator=v5litepod-16"],
    SLURM: [],
    GKE: [a for a in NEEDED[GKE] if not a.startswith(("--config", "--workdir"))],
}

TRAINING = f"""{SAVES}
printf '%s\\n' "$JAX_LOCAL_DEVICE_IDS|$JAX_PLATFORMS|$XLA_FLAGS" >>"$HOME/environment"
echo "step of $n"
for word in "$@"; do [[ $word != --process-id=* ]] || process=${{word#*=}}; done
"""


class Machine:
    """A PATH of system tools and stubs; a stub notes its call and then runs its body."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.workdir = folder / "work"
        self.environment = {
            "PATH": str(self.bin),
            "HOME": str(folder),
            "CALLS": str(folder / "calls"),
            "WORK": str(self.workdir),
        }

    def stub(self, name: str, body: str = "") -> Path:
        path = self.bin / name
        path.write_text(
            "#!/usr/bin/env bash\n"
            # In one piece: workers write at the same time.
            f'line=$(printf "%s\\t" {name} "$@") && echo "$line" >>"$CALLS"\n'
            # How often it was called, this call included.
            f'n=$(grep -c "^{name}\t" "$CALLS")\n{body}\n'
        )
        path.chmod(0o755)
        return path

    def command(self, script: str, *arguments: str) -> list[str]:
        arguments = [a.replace("WORK", str(self.workdir)) for a in arguments]
        return [str(self.bin / "bash"), str(ROOT / script), *arguments]

    def run(self, script: str, *arguments: str, **environment: str):
        return subprocess.run(
            self.command(script, *arguments),
            env=self.environment | environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def start(self, script: str, *arguments: str, **environment: str):
        # A test run in the background ignores SIGINT, and bash cannot trap what was ignored.
        return subprocess.Popen(
            ["/usr/bin/env", "--default-signal=INT", *self.command(script, *arguments)],
            env=self.environment | environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def calls(self, name: str) -> list[list[str]]:
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [c[1:] for c in (line.split("\t")[:-1] for line in lines) if c[0] == name]

    def wait_for(self, path: Path, text: str) -> None:
        deadline = time.monotonic() + 20
        while not (path.exists() and text in path.read_text()):
            assert time.monotonic() < deadline, f"no {text!r} in {path}"
            time.sleep(0.05)


def refused(done, message: str) -> None:
    """Status 2, and one line on stderr that says so."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


def run_here(*command, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, **options)
