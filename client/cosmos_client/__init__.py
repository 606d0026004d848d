"""The client of cosmos-triton: gRPC, typed results, no torch.

from cosmos_client import CosmosClient

with CosmosClient("localhost:8001") as client:
    client.generate("clip.mp4", seed=7).save("world.mp4")
"""

from cosmos_client._client import CosmosClient
from cosmos_client._errors import (
    BlockedByGuardrail,
    CosmosClientError,
    DeadlineExceeded,
    NotAdmitted,
    NotReached,
    OutputError,
    ProtocolError,
    RequestCancelled,
    RequestRefused,
    ServerFault,
    ServerStopping,
    ServerUnavailable,
    UsageError,
)
from cosmos_client._options import Options
from cosmos_client._status import ModelStatus, ServerStatus
from cosmos_client._world import World

__all__ = [
    "BlockedByGuardrail",
    "CosmosClient",
    "CosmosClientError",
    "DeadlineExceeded",
    "ModelStatus",
    "NotAdmitted",
    "NotReached",
    "Options",
    "OutputError",
    "ProtocolError",
    "RequestCancelled",
    "RequestRefused",
    "ServerFault",
    "ServerStatus",
    "ServerStopping",
    "ServerUnavailable",
    "UsageError",
    "World",
]
