"""Exit codes, and errors of user input: one sentence on stderr and exit code 2, never a traceback."""

import re
import sys
from types import TracebackType

EXIT_SOME_FAILED = 1  # some cases failed or were refused; the others are done
EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130  # by Ctrl-C, as shells report it
EXIT_TERMINATED = 143  # by SIGTERM, as shells report it
EXIT_REQUEUE = 75  # by SIGTERM, and what is done is saved: a scheduler should start the same job again (EX_TEMPFAIL)
# how a mistyped override below the top level ends: MONAI passes it to the component of its section
UNKNOWN_ARGUMENT = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
# what the machine ran out of, by the text of torch's, numpy's and the operating system's errors
NO_MEMORY = re.compile(
    r"out of memory|DefaultCPUAllocator|annot allocate memory|Unable to allocate \d|bad_alloc|_ALLOC_FAILED"
)
NO_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (exited unexpectedly|is killed by signal: [\w ]+)")
MEMORY_SENTENCE = (
    "this machine or its GPU is out of memory{amount}: in training use a smaller batch_size or patch_size, or cache"
    " disk; in inference a smaller window_size or window_batch; in scoring fewer workers; what was saved is kept."
)


class InputError(Exception):
    """Wrong input by the user: the message says what was found, where, what was expected and what to do."""


def input_error_message(error: BaseException | None) -> str | None:
    """The message of the `InputError` behind `error`, or of lack of memory; None if there is neither.

    MONAI wraps what a transform or a config expression raises, and a loader process passes on only the text of its
    traceback, so both the chain of causes and the text are searched.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        text = str(error)
        if isinstance(error, InputError) and "Traceback (most recent call last)" not in text:
            return text
        if from_loader := re.findall(r"^(?:\w+\.)*InputError: (.+)$", text, flags=re.MULTILINE):
            return from_loader[-1]
        if unknown := UNKNOWN_ARGUMENT.search(text):
            return f"{unknown[1]} has no argument '{unknown[2]}': look for it in the overrides and recipes given."
        if sentence := _exhausted(error, text):
            return sentence
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _exhausted(error: BaseException, text: str) -> str | None:
    """The sentence for an error due to lack of memory or a lost loader process."""
    if ended := NO_WORKER.search(text):
        return (
            f"a process that loads training data {ended[1].strip()}, most likely for lack of memory or shared memory:"
            " use a smaller num_workers (0: none), or cache disk; finished epochs are kept, continue with --resume."
        )
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError | OSError) and NO_MEMORY.search(text)):
        amount = re.search(r"allocate (\d[\d.]* ?\w+)", text)
        return MEMORY_SENTENCE.format(amount=f" ({amount[1]} were requested)" if amount else "")
    return None


def report_and_exit(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An excepthook: an `InputError` anywhere in the chain becomes a sentence and exit code 2; Ctrl-C gives 130."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"\n{str(error) or 'Interrupted.'}", file=sys.stderr)  # the sentence of `scripts.stopping`
        sys.exit(EXIT_INTERRUPTED)
    sentence = input_error_message(error)
    if sentence is None:
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(EXIT_WRONG_INPUT)


def install_excepthook() -> None:
    """Install `report_and_exit`, for processes started by another program (`python -m monai.bundle`)."""
    sys.excepthook = report_and_exit
