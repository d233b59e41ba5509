"""Opening the store a command names, and the scope it is about."""

from __future__ import annotations

import argparse
import os

from .. import compose
from ..memory import Memory
from ..protocols import Embedder
from ..storage.disk import is_disk_full
