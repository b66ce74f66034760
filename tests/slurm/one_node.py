"""How is a SLURM of one node started for a test, with cards that are none, and stopped again?

The node claims more cores and memory than the machine may have: how much runs at once is the tests' affair.

Its configuration, state, ports and munge key are its own and lie in one folder. A link at /etc/slurm/slurm.conf leads
SLURM's commands there (the executor plugin hides the variable SLURM_CONF from a job's step). A machine that has a SLURM
keeps it, and nothing is started. By hand, as root:

    python tests/slurm/one_node.py start FOLDER
    python tests/slurm/one_node.py stop FOLDER
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "sinfo", "munged")
CONFIGURED = Path("/etc/slurm/slurm.conf")  # where SLURM's commands look for it
# the one node is in both: a job that waits for a card must not keep others waiting
PARTITIONS = {"cpu": "Default=YES PriorityTier=2", "gpu": "PriorityTier=1"}
NULL_DEVICE = os.makedev(1, 3)

OURS = "# Written by tests/slurm/one_node.py\n"
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/node
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=200000
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MinJobAge=3600
KillWait=2
OverTimeLimit=0
ReturnToService=2
SlurmdParameters=config_overrides
SlurmctldTimeout=30
SlurmdTimeout=30
InactiveLimit=0
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=131072 Gres=gpu:fake:{cards} State=UNKNOWN
"""
PARTITION = "PartitionName={name} Nodes={host} {more} MaxTime=INFINITE State=UP DefMemPerCPU=500\n"
CARDS = "NodeName={host} Name=gpu Type=fake File={folder}/card[0-{last}]\n"


def reason_not_to_start() -> str | None:
    """Why no SLURM can be started here, or None where one can."""
    if os.getuid() != 0:
        return "SLURM's daemons and the devices that stand for its cards need root"
    if CONFIGURED.exists() and not _left_behind():
        return f"this machine has a SLURM ({CONFIGURED.resolve()}), which is left alone"
    if os.environ.get("SLURM_CONF") or os.environ.get("SLURM_JOB_ID"):
        return "this machine has a SLURM (SLURM_CONF or SLURM_JOB_ID is set), which is left alone"
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        return f"{', '.join(missing)} not installed (apt-get install {' '.join(PACKAGES)})"
    try:
        socket.gethostbyname(socket.gethostname())
    except OSError:
        return f"the machine cannot find itself by its name, {socket.gethostname()} (a line in /etc/hosts is missing)"
    return None


def _left_behind() -> bool:
    """Whether the link is that of a SLURM of ours whose end was not waited for, and which has ended."""
    if not CONFIGURED.is_symlink() or not CONFIGURED.read_text().startswith(OURS):
        return False
    return not _runs(CONFIGURED.resolve().with_name("slurmctld.pid"), "slurmctld")


@contextlib.contextmanager
def one_node_slurm(folder: Path, cores: int = 16, cards: int = 2) -> Iterator[None]:
    """SLURM's commands reach a node of its own, with partitions `cpu` and `gpu`, until the block is left.

    Raises:
        RuntimeError: nothing can be started here, or a daemon did not come up; what it logged is in the message.
    """
    start(folder, cores, cards)
    try:
        yield
    finally:
        stop(folder)


def start(folder: Path, cores: int = 16, cards: int = 2) -> None:
    """Starts munge, the controller and the node in `folder`, and waits until the node takes jobs."""
    if reason := reason_not_to_start():
        raise RuntimeError(reason)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # munge refuses a socket under a folder that only its owner may enter
    (folder / "controller").mkdir(exist_ok=True)
    (folder / "node").mkdir(exist_ok=True)
    _write_configuration(folder, cores, cards)
    for index in range(cards):
        _make_card(folder / f"card{index}")
    CONFIGURED.parent.mkdir(exist_ok=True)
    CONFIGURED.unlink(missing_ok=True)  # a link that was left behind
    CONFIGURED.symlink_to(folder / "slurm.conf")
    try:
        _run(_munged(folder), folder / "munge.log")
        _run(["slurmctld", "-c", "-f", str(folder / "slurm.conf")], folder / "slurmctld.log")
        _run(["slurmd", "-c", "-f", str(folder / "slurm.conf")], folder / "slurmd.log")
        _wait_until(lambda: _node_state() == "idle", f"the node did not become idle; see {folder}/*.log")
    except BaseException:
        stop(folder)
        raise


def stop(folder: Path) -> None:
    """Cancels every job, ends the three daemons (known by the files with their process ids) and takes the link away."""
    if (folder / "slurmctld.pid").exists():
        _quietly("scancel", "--user=root")
        with contextlib.suppress(RuntimeError):
            _wait_until(lambda: not _quietly("squeue", "--noheader").strip(), "jobs remain", seconds=15)
    for name in ("slurmd", "slurmctld", "munged"):
        _end(folder / f"{name}.pid", name)
    if CONFIGURED.is_symlink() and CONFIGURED.readlink() == folder / "slurm.conf":
        CONFIGURED.unlink()


def _write_configuration(folder: Path, cores: int, cards: int) -> None:
    controller_port, node_port = _free_ports(2)
    facts = dict(host=socket.gethostname().split(".")[0], folder=folder, cores=cores, cards=cards, last=cards - 1)
    ports = dict(controller_port=controller_port, node_port=node_port)
    partitions = [PARTITION.format(name=name, more=more, **facts) for name, more in PARTITIONS.items()]
    text = CONFIGURATION.format(**facts, **ports)
    (folder / "slurm.conf").write_text("".join([OURS, text, *partitions]))
    (folder / "gres.conf").write_text(CARDS.format(**facts))
    if _version() >= (23, 11):
        (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")


def _version() -> tuple[int, int]:
    said = subprocess.run(["slurmd", "-V"], capture_output=True, text=True, check=True).stdout  # slurm-wlm 22.05.8
    major, minor = said.split()[1].split(".")[:2]
    return int(major), int(minor)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _make_card(path: Path) -> None:
    """A character device, as SLURM demands one for each card: another name of /dev/null."""
    if not path.exists():
        os.mknod(path, 0o666 | stat.S_IFCHR, NULL_DEVICE)


def _munged(folder: Path) -> list[str]:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    places = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munged.pid"}
    logs = {"log-file": folder / "munge.log", "seed-file": folder / "munge.seed"}
    return ["munged", "--force", *(f"--{name}={path}" for name, path in {**places, **logs}.items())]


def _run(command: list[str], log: Path) -> None:
    """Starts a daemon, which goes to the background by itself."""
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if run.returncode:
        logged = log.read_text()[-2000:] if log.exists() else ""
        raise RuntimeError(f"{' '.join(command)} ended with {run.returncode}:\n{run.stderr}\n{logged}")


def _quietly(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout


def _node_state() -> str:
    return _quietly("sinfo", "--noheader", "--Node", "--format=%T", "--partition=cpu").strip()


def _wait_until(condition: Callable[[], bool], complaint: str, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(complaint)
        time.sleep(0.2)


def _end(pid_file: Path, name: str) -> None:
    """Ends a daemon of ours and waits for it."""
    if _runs(pid_file, name):
        process = int(pid_file.read_text())
        os.kill(process, signal.SIGTERM)
        with contextlib.suppress(RuntimeError):
            _wait_until(lambda: not _runs(pid_file, name), "", seconds=10)
        if _runs(pid_file, name):
            os.kill(process, signal.SIGKILL)
    pid_file.unlink(missing_ok=True)


def _runs(pid_file: Path, name: str) -> bool:
    """Whether the process of that file lives and is a `name`: the number may have been given to something else."""
    try:
        process = Path("/proc", pid_file.read_text().strip())
        fields = (process / "stat").read_text()
    except OSError:
        return False
    return f"({name})" in fields and fields.rpartition(")")[2].split()[0] != "Z"


if __name__ == "__main__":
    {"start": start, "stop": stop}[sys.argv[1]](Path(sys.argv[2]).resolve())
