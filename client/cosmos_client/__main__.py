"""`python -m cosmos_client` is `cosmos-client`."""

import sys

from cosmos_client.cli import main

sys.exit(main())
