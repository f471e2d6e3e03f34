"""What a fitted threshold promises, and what it saves, with real device and cloud models on Fashion-MNIST."""
