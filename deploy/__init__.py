"""
Deployment: other formats (ONNX, torch.export, INT8) and smaller networks (pruning, distillation).

Modules here may import everything except the commands.
"""
