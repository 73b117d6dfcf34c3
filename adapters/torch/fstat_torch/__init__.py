"""In-training sampling of influence observations for PyTorch."""
