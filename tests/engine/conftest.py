"""The engine's tests share the fakes that lie beside them; killed subprocesses run them as a script."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
