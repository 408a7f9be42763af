"""The Router: the native data plane, its sessions with the Managers, and everything that is not
`Invoke`."""
