"""Where the desired state comes from. A source gives text; what the text means is `controller.spec`."""
