"""
Deployment: other formats (ONNX, torch.export, INT8) and smaller networks (pruning, distillation).

May import everything except the commands.
"""
