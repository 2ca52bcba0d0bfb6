"""`python -m ropeconv`."""

from ropeconv.cli.main import main

main()
