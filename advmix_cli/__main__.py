"""`advmix` and `python -m advmix_cli`."""

import sys


def main() -> None:
    """Run the command line. Ctrl-C ends with 130 at any time; once the work is done it changes nothing more."""
    try:
        try:
            from advmix_cli.cli import main as run

            run()
        finally:
            _deaf()
    except KeyboardInterrupt:
        _deaf()
        sys.exit(130)


def _deaf() -> None:
    import signal  # not above: its import is a moment in which Ctrl-C would show a traceback

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


if __name__ == "__main__":
    main()
