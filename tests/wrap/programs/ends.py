"""Trains a small net, and ends in the way that its first argument names."""

import atexit
import multiprocessing
import os
import signal
import sys
import time

import torch
from torch import nn

FEW, MANY = 3, 1_000_000


def train(num_steps: int = MANY, *, swallows: bool = False) -> None:
    net = nn.Linear(8, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(num_steps):
        try:
            net(torch.ones(4, 8)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        except:  # noqa: E722
            if not swallows:
                raise


def how_it_ends(how: str) -> None:
    if how == "raises":
        raise ValueError("the loss has no such name")
    if how == "memory":
        torch.ones(4, 8)
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")
    if how == "asks":
        input("continue? ")
    if how == "early":
        train(FEW)
    if how == "exit-3":
        train(FEW)
        sys.exit(3)
    if how == "binary":
        sys.stdout.buffer.write(bytes(range(256)) * 8)
        sys.stdout.flush()
        train(FEW)
        sys.exit("\x1b[2J\x1b[31mred")
    if how == "os-exit":
        train(FEW)
        os._exit(0)
    if how == "dies":
        train(FEW)
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "waits":  # as for a peer that is not there
        time.sleep(600)
    if how == "own-update":  # an optimizer that is none of torch's
        net, loader = nn.Linear(8, 1), torch.utils.data.DataLoader(torch.ones(100_000, 8))
        for x in loader:
            net(x).sum().backward()
            time.sleep(0.01)
    if how == "small-last":  # the batch that is counted would be an epoch's last, of two
        net, loader = nn.Linear(8, 1), torch.utils.data.DataLoader(torch.ones(130, 8), 32)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        while True:
            for x in loader:
                net(x).sum().backward()
                optimizer.step()
    if how == "forks":
        if os.fork() == 0:
            train()
        os.wait()
    if how in ("fork", "spawn", "forkserver"):
        child = multiprocessing.get_context(how).Process(target=train)
        child.start()
        child.join()
        sys.exit(child.exitcode)
    if how == "polite":
        atexit.register(print, "atexit has run")
        try:
            train()
        finally:
            print("finally has run")
    if how == "interrupted":
        try:
            print("training", flush=True)
            train() if os.environ.get("TRAINS") else time.sleep(600)
        except KeyboardInterrupt:
            time.sleep(0.5)
            print("the program has kept its checkpoint", flush=True)
    if how == "stubborn":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("training", flush=True)
        time.sleep(600)
    if how == "swallows":
        train(swallows=True)
    if how == "hangs":
        try:
            train()
        finally:
            time.sleep(600)
    if how == "goes-on":
        train(int(sys.argv[2]))
        print("whole output", "x" * 200_000)
        sys.exit(5)
    if how == "loud":
        for _ in range(2_000):
            print("y" * 100_000)
        raise ValueError("after 200 MB")


if __name__ == "__main__":
    how_it_ends(sys.argv[1])
