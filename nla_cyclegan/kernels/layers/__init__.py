"""What lies between cuDNN's convolutions, each layer with its backward pass as a torch.autograd.Function."""
