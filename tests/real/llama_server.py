"""Run where xllamacpp is installed: llama.cpp's own server with a GGUF file, bound to this machine alone.
Arguments: the file and a port."""

from __future__ import annotations

import signal
import sys

import xllamacpp

parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.hostnames = ["127.0.0.1"]
parameters.port = int(sys.argv[2])
parameters.offline = True
parameters.n_ctx = 8192
parameters.n_parallel = 2
parameters.cpuparams.n_threads = 1
server = xllamacpp.Server(parameters)
signal.pause()
