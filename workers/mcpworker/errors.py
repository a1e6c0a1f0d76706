"""The errors of the framework, one tree on one page.

FastMCPError -> ValidationError | ResourceError | ToolError | PromptError | CapabilityError
Exception    -> InvalidSignature | ClientError | NotFoundError | Overloaded

What a tool, resource or prompt raises reaches the client as text; its traceback goes to the log only. An
`mcp.MCPError` passes through unchanged, as the protocol error that it is.
"""


class FastMCPError(Exception):
    """Base of the errors that user code and the framework raise while they serve."""


class ValidationError(FastMCPError):
    """Arguments or results do not fit what was declared."""


class ResourceError(FastMCPError):
    """A resource could not be read."""


class ToolError(FastMCPError):
    """A tool failed in a way that its caller, usually a model, should read about."""


class PromptError(FastMCPError):
    """A prompt could not be rendered."""


class CapabilityError(FastMCPError):
    """The client cannot do what was asked of it: it did not declare the capability."""


class InvalidSignature(Exception):
    """A function cannot become a tool, resource or prompt as it is written."""


class ClientError(Exception):
    """A call made through `Client` was answered with an error."""


class NotFoundError(Exception):
    """No tool, resource or prompt has this name."""


class Overloaded(Exception):
    """A bound was reached; the same request may succeed later."""
