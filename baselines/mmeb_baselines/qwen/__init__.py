"""What the Qwen-VL families share: prompts of text and pictures, patches, the forward pass, the embedder."""
