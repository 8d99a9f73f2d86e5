"""The worker of `llmkit.training`, in float32 where laws are exact, as a test wants it.

FSDP_ON_CPU     share weights out over gloo, which accelerate would do on GPUs only
DIE_AT          a step after which process 1 is killed as a system does it
MORE_JOBS       further jobs, done in the same processes, one after another
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from accelerate.state import DistributedType, PartialState

from llmkit.training import loss, processes, train, trainer, worker

train.compute_dtype = lambda device: torch.float32
torch.set_num_threads(1)
loss.CHUNK = 16  # so that a forward pass has several

if os.environ.get("FSDP_ON_CPU"):
    gloo = "gloo", DistributedType.MULTI_GPU
    PartialState._prepare_backend = lambda self, *_: gloo
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"

if os.environ.get("DIE_AT"):
    stepped = trainer.Watch.on_step_end

    def die(self, args, state, control, **rest):
        if state.global_step == int(os.environ["DIE_AT"]) and processes.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return stepped(self, args, state, control, **rest)

    trainer.Watch.on_step_end = die

if __name__ == "__main__":
    first = Path(sys.argv[1])
    real = worker.work

    def work(job: Path) -> None:
        for each in [job, *json.loads(os.environ.get("MORE_JOBS", "[]"))]:
            real(Path(each))

    worker.work = work
    worker.main()
