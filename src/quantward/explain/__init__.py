"""Where a network looks: maps of what moved its answer, and how far those maps drift when its numbers get fewer bits.

`gradients` and `gradcam` need a torch network (float or simulated); `occlusion` needs only a Session, so it looks at
the deployed file itself. A map is (size, size), not negative, larger where the image mattered more.
"""
