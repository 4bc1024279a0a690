"""``python -m appliance.controller``."""

import sys

from appliance.controller.launcher import main

if __name__ == "__main__":
    sys.exit(main())
