"""
The training step without the overhead of Python. It launches about two thousand kernels, and with batch size 1 a fast
GPU finishes one before Python has launched the next. The step is therefore recorded once as a CUDA graph and replayed.

Skip this on first reading: what is recorded is the step in cyclegan.py.
"""

import torch
import torch.distributed as dist

from utils import InputError


def recorded(step, say=print, warm_up=3):
    """-> a function that does what `step` does, replayed from a CUDA graph after the first `warm_up` calls

    step: takes tensors on a CUDA device and returns one. It must not wait for the device. Everything that differs
          between two calls must be in these tensors, or in others that are changed in place: Python's numbers and
          decisions are fixed when the step is recorded
    say:  called with one line if recording fails. The step then runs without a graph: slower, with the same result

    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    n_calls, inputs, result = 0, None, None

    def unrecorded(*arguments):
        # on the stream of the recording: autograd and the allocator remember the stream of a weight
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            output = step(*arguments)
        current.wait_stream(stream)
        output.record_stream(current)
        return output

    def record():
        """-> None, or the reason why it failed"""
        nonlocal result
        current = torch.cuda.current_stream()
        try:
            # thread_local: other threads, such as the data loader's, may allocate memory at the same time
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                result = step(*inputs)
        except RuntimeError as error:
            torch.cuda.set_stream(current)  # some versions do not restore it after an error
            return str(error.__context__ or error).splitlines()[0]  # the context is the first error

    def call(*arguments):
        nonlocal n_calls, graph, inputs
        n_calls += 1
        if graph is None or n_calls <= warm_up:
            return unrecorded(*arguments)
        if result is None:
            inputs = [argument.clone() for argument in arguments]
            reason = record()
            if reason:
                say(f"note: cannot record the step as a CUDA graph ({reason}); training continues without, more slowly")
                graph = inputs = None
                torch.cuda.empty_cache()  # frees the memory of the attempt
                return unrecorded(*arguments)
        for tensor, argument in zip(inputs, arguments):
            tensor.copy_(argument, non_blocking=True)
        graph.replay()
        return result.clone()  # the next replay overwrites it

    return call


def use_graph(opt, device):
    """Whether to record the step as a CUDA graph: --graph or --no-graph, by default with one process on CUDA. Raises
    InputError."""
    is_alike = opt.n_critic == opt.n_gen == 1 and not opt.ratio_A  # only a step that is always the same can be replayed
    if opt.graph and device.type != "cuda":
        raise InputError(f"--graph: {device} has no CUDA graphs. Run without it")
    if opt.graph and not is_alike:
        raise InputError("--graph: steps differ with --n_critic, --n_gen and --ratio_A. Run without it")
    return may_record(device) and is_alike if opt.graph is None else opt.graph


def may_record(device):
    """Whether a step is recorded by default: on CUDA, and if it does not communicate with other processes."""
    return device.type == "cuda" and (not dist.is_initialized() or dist.get_world_size() == 1)
