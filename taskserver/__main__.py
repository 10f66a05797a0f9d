"""``python -m taskserver``"""

from taskserver.cli import main

main()
