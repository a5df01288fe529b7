"""What features belong to."""

from feast import Entity, ValueType

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="A person whose interactions are known")
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING, description="Something that can be recommended")
