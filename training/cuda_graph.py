"""
The training step without the overhead of Python: it is some two thousand kernels, and at batch size 1 a fast GPU may be
done with one before the program has asked for the next. So they are recorded once, as a CUDA graph, and from then on
asked for as one.

Skip this on first reading: the mathematics is what was recorded, that of cyclegan.py.
"""

import torch
import torch.distributed as dist

from utils import InputError


def may_record(device):
    """Whether a step is recorded if nobody says otherwise: on CUDA, and not if messages between processes are in it."""
    return device.type == "cuda" and (not dist.is_initialized() or dist.get_world_size() == 1)


def use_graph(opt, device):
    """What --graph and --no-graph say, or may_record if neither was given. Raises InputError where it cannot be."""
    alike = opt.n_critic == opt.n_gen == 1 and not opt.ratio_A  # only a step that is always the same can be replayed
    if opt.graph and device.type != "cuda":
        raise InputError(f"--graph: {device} has no CUDA graphs. Leave it out")
    if opt.graph and not alike:
        raise InputError("--graph: steps differ with --n_critic, --n_gen and --ratio_A. Leave it out")
    return may_record(device) and alike if opt.graph is None else opt.graph


def recorded(step, say=print, warm_up=3):
    """A function that does what `step` does, replayed from a CUDA graph after the first `warm_up` calls.

    step: takes tensors on a CUDA device and returns one. It must not wait for the device, and all that differs between
          two calls must be in these tensors, or in others that are changed in place: numbers, and decisions made in
          Python, would stay what they were when it was recorded
    say:  told if the recording fails, in a line; the steps then run as they are, which is slower and gives the same

    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    n_calls, inputs, result = 0, None, None

    def unrecorded(*arguments):
        # On the stream of the recording: autograd and the allocator remember on which one they met a weight
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            output = step(*arguments)
        current.wait_stream(stream)
        output.record_stream(current)
        return output

    def record():
        """-> None, or why it cannot be done"""
        nonlocal result
        current = torch.cuda.current_stream()
        try:
            # thread_local: other threads, such as the data loader's, may allocate memory meanwhile
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                result = step(*inputs)
        except RuntimeError as error:
            torch.cuda.set_stream(current)  # after an error some versions leave the other one in its place
            return str(error.__context__ or error).splitlines()[0]  # the context is what was wrong in the first place

    def call(*arguments):
        nonlocal n_calls, graph, inputs
        n_calls += 1
        if graph is None or n_calls <= warm_up:
            return unrecorded(*arguments)
        if result is None:
            inputs = [argument.clone() for argument in arguments]
            reason = record()
            if reason:
                say(f"note: the step cannot be recorded as a CUDA graph ({reason}); going on without, more slowly")
                graph = inputs = None
                torch.cuda.empty_cache()  # the memory of the attempt
                return unrecorded(*arguments)
        for tensor, argument in zip(inputs, arguments):
            tensor.copy_(argument, non_blocking=True)
        graph.replay()
        return result.clone()  # the next replay writes to the same place

    return call
