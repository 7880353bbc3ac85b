"""
Other formats and smaller networks: ONNX, torch.export, INT8, pruning, distillation.

May import everything but the commands.
"""
