"""Drawing of the demo's scenes with Pillow: sprites, landmarks, terrain and skies."""
