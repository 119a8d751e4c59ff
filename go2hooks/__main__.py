"""`python -m go2hooks`, where the script is not on the path."""

from go2hooks.cli import main

main()
