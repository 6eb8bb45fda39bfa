"""`python -m quantward` is the command line."""

from quantward.cli import main

main()
