"""How a line of a file says a conversation: one schema a file."""

from .alpaca import Alpaca
from .chat import Chat
from .conversations import Conversations
from .schema import Message, Schema, as_messages

SCHEMAS: tuple[Schema, ...] = (Chat(), Conversations(), Alpaca())

__all__ = [
    "SCHEMAS",
    "Alpaca",
    "Chat",
    "Conversations",
    "Message",
    "Schema",
    "as_messages",
]
