"""The client of cosmos-triton: gRPC, typed results, no torch."""
