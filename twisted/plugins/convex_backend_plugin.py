"""Make ``twistd convex-backend`` known. Imports nothing of ours, so that ``twistd --help`` stays fast."""

from twisted.application.service import ServiceMaker

convex_backend = ServiceMaker(
    "convex-backend",
    "convex_backend.tap",
    "A reactive backend for Convex clients and CLI.",
    "convex-backend",
)
