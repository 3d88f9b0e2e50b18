"""Failures that the sandbox causes, recognized by what Python and native libraries print about them.

A library names what failed (`BlockingIOError`, `std::bad_alloc`), but not the limit behind it. The table gives that
limit and the sentence that the agent reads.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rollout.executor.script_env import OPEN_FILES
from rollout.types import Execution, Exit
from tasks.task import Limits

TRACEBACK = "Traceback (most recent call last):\n"
CHAINED = ("another exception occurred:", "direct cause of the following exception:")
FRAME = '  File "'
MESSAGE_LINES = 12  # lines from the last frame of a traceback on that describe its exception
LAST_LINES = 20  # lines of an output without a traceback that are searched
# Exceptions of a process that lost another one, which printed the cause itself.
CONSEQUENCE = re.compile(
    r"^(?:[\w.]*\.)?(?:EOFError|Broken\w+|Connection\w+Error|TerminatedWorkerError|CalledProcessError|KeyboardInterrupt|"
    r"FileNotFoundError: \[Errno 2\] No such file or directory$|RuntimeError: DataLoader worker)",
    re.MULTILINE,
)
# Exceptions of the script's own mistakes: what their messages quote is no limit of the sandbox.
OWN_MISTAKE = re.compile(r"^(?:Key|Value|Type|Index|Assertion|Attribute|Name|ZeroDivision)Error\b", re.MULTILINE)
FORK = r"(?:fork|spawn|subprocess)[^\n]*\n(?:    [^\n]*\n)*"  # the frame that starts a process
SEMAPHORE = r"SemLock\([^\n]*\n(?:    [^\n]*\n)*"
PROGRAM = r"^FileNotFoundError: \[Errno 2\] No such file or directory: "


@dataclass(frozen=True)
class KnownFailure:
    """A failure with a cause that the message of the failing library does not name.

    Attributes:
        pattern: What the failing library prints, after the last frame of the traceback if there is one.
        exit: The limit that was reached, None if the sandbox lacks something instead.
        sentence: The cause and what to do, with the limits as placeholders; empty if the exit itself says it.
    """

    pattern: re.Pattern[str]
    exit: Exit | None
    sentence: str = ""

    def text(self, limits: Limits) -> str:
        """Return the sentence for a script with these limits; empty if it is not the cause under them."""
        if self.sentence == NO_GPU and limits.num_gpus:
            return ""
        return self.sentence.format(limits=limits)


NO_NETWORK = "A script has no network; use the files of the project and the installed packages."
NO_PACKAGE = "Nothing can be installed in the sandbox; use the installed packages, or write the code into the script."
NO_SHARED_MEMORY = (
    "The sandbox has no /dev/shm, so processes cannot share locks or memory; use threads, or n_jobs of scikit-learn."
)
NO_SOCKETS = (
    "A script has no network and no sockets, which a Manager of multiprocessing needs too; use files or threads."
)
NO_GPU = "The script has no GPU; use the CPU."
NO_INPUT = "A script has no standard input; write the values into the script."
NO_DISPLAY = "A script has no display; save figures to files, with matplotlib's backend Agg."
READ_ONLY = "This place is read-only; write to a new file in the working directory."
OUT_OF_REACH = "A script can reach only its working directory, installed packages, and files made with `tempfile`."
NOT_PERMITTED = "The sandbox does not permit this system call; leave it out."
TOO_MANY_PROCESSES = (
    "It needed more than {limits.num_processes} processes and threads; use fewer workers (n_jobs, pool size): "
    "{limits.num_threads} can work at the same time."
)
TOO_MANY_FILES = f"It had more than {OPEN_FILES} files open at the same time; close each file before opening more."
GPU_MEMORY = "It used more memory than its GPU has; use smaller batches or a smaller model."
SIGNAL = "A signal ended it, as after a fault in compiled code."


def _known(pattern: str, exit: Exit | None, sentence: str = "") -> KnownFailure:
    return KnownFailure(re.compile(pattern, re.MULTILINE), exit, sentence)


KNOWN_FAILURES = (
    _known(
        rf"{FORK}(?:BlockingIOError|OSError): \[Errno 11\]|can't (?:start new thread|allocate new thread)|"
        r"(?i:thread|fork|clone|spawn|std::system_error)[^\n]*\n?[^\n]*(?:Resource temporarily unavailable|WouldBlock)|"
        r"System unable to allocate necessary resources for OMP thread|\bCannot fork\b",
        Exit.OUT_OF_PROCESSES,
        TOO_MANY_PROCESSES,
    ),
    _known(r"\[Errno 24\]|Too many open files", Exit.OUT_OF_FILES, TOO_MANY_FILES),
    _known(r"CUDA out of memory|CUDA_ERROR_OUT_OF_MEMORY|CUDA error: out of memory", Exit.OUT_OF_MEMORY, GPU_MEMORY),
    _known(
        r"^(?:[\w.]*\.)?_?\w*MemoryError\b|\bUnable to allocate \d|[Cc]an(?:no|')t allocate memory|std::bad_alloc|"
        r"bad_malloc|^memory allocation of \d+ bytes failed|Memory allocation still failed|[Oo]ut of memory",
        Exit.OUT_OF_MEMORY,
    ),
    _known(
        r"\[Errno (?:27|28)\]|No space left on device|File too large|File size limit exceeded|SIGXFSZ|"
        r"database or disk is full|disk I/O error|\d+ requested and \d+ written",
        Exit.OUT_OF_DISK,
    ),
    _known(
        rf"{SEMAPHORE}\w+: \[Errno (?:2|13|38)\]|^PermissionError: \[Errno 13\] Permission denied: '/(?:psm_|dev/shm)",
        None,
        NO_SHARED_MEMORY,
    ),
    _known(r"\[Errno 97\]", None, NO_SOCKETS),
    _known(
        r"Temporary failure in name resolution|(?:[Cc]ould not|unable to) resolve host|Name or service not known|"
        r"NameResolutionError|Failed to resolve '|'remote-https?' is not a git command|"
        r"Network is unreachable|No route to host|couldn't connect to 'https?://|^LookupError: *\n\**\n *Resource |"
        rf"huggingface_hub\S*(?:LocalEntryNotFoundError|OfflineModeIsEnabled)|{PROGRAM}'(?:wget|curl|git|kaggle)'",
        None,
        NO_NETWORK,
    ),
    _known(
        r"^ModuleNotFoundError: No module named '\w+'|Missing optional dependency '|"
        r"^ImportError: .*(?:\bpip\b|is required)|`Import \w+` failed|cannot open shared object file|"
        rf"^subprocess.CalledProcessError: .*\b(?:pip|conda|apt-get)\b.*\binstall\b|"
        rf"{PROGRAM}'(?:pip3?|conda|mamba|apt|apt-get|sudo|uv)'",
        None,
        NO_PACKAGE,
    ),
    _known(
        r"No CUDA GPUs are available|Found no NVIDIA driver|not compiled with (?:CUDA|GPU)|no CUDA-capable device|"
        r"CUDA driver version is insufficient|No OpenCL device found|GPU Tree Learner was not enabled|"
        rf"Unable to initialize backend '(?:cuda|gpu)'|deserialize object on a CUDA device|{PROGRAM}'nvidia-smi'",
        None,
        NO_GPU,
    ),
    _known(r"^EOFError: EOF when reading a line", None, NO_INPUT),
    _known(
        r"TclError: (?:no display|couldn't connect to display|Can't find a usable \w+\.tcl)|"
        r"^ImportError: Cannot load backend '|(?i:could not|cannot|can't) connect to (?:X server|display)",
        None,
        NO_DISPLAY,
    ),
    _known(r"\[Errno 30\]", None, READ_ONLY),
    _known(r"^PermissionError: \[Errno 13\] Permission denied: '/", None, OUT_OF_REACH),
    _known(r"^PermissionError: \[Errno 1\] Operation not permitted", None, NOT_PERMITTED),
)


def known_failure(output: str) -> KnownFailure | None:
    """Return the known failure that ended a script with this output, None if there is none.

    Failures that the script handled do not count. If the last exception only says that another process is gone, the
    tracebacks before it count too.
    """
    for text in _explanations(output):
        is_own_mistake = bool(OWN_MISTAKE.search(text))
        for failure in KNOWN_FAILURES:
            if failure.pattern.search(text) and not (failure.exit and is_own_mistake):
                return failure
    return None


def _explanations(output: str) -> Iterator[str]:
    """Yield the parts of an output that may explain its end, the most likely first."""
    first, *tracebacks = output.split(TRACEBACK)
    tracebacks.reverse()
    followed = bool(tracebacks) and bool(CONSEQUENCE.search(_exception(tracebacks[0])))
    for number, traceback in enumerate(tracebacks):
        if number == 0 or followed or traceback.rstrip().endswith(CHAINED):
            yield _exception(traceback)
        else:
            return
    if followed or not tracebacks:
        yield "\n".join(first.rstrip().splitlines()[-LAST_LINES:])


def _exception(traceback: str) -> str:
    """Return the last frame of a traceback and its exception."""
    lines = traceback[max(traceback.rfind(FRAME), 0) :].splitlines(keepends=True)
    return "".join(lines[:MESSAGE_LINES])


def cause_of(execution: Execution, limits: Limits) -> str:
    """Return the cause of a failed run and what to do about it in a sentence, empty if its exit and output say it."""
    if execution.exit is Exit.OUT_OF_PROCESSES:
        return TOO_MANY_PROCESSES.format(limits=limits)  # also if the sandbox was ended before it could print anything
    failure = known_failure(execution.output)
    if failure is None:
        return SIGNAL if execution.exit is Exit.KILLED else ""
    has_limit = execution.exit in (Exit.OUT_OF_MEMORY, Exit.OUT_OF_DISK)
    return "" if has_limit and failure.exit is not execution.exit else failure.text(limits)
