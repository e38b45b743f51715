"""What models of lidar frames share: how points are loaded, pillar layers, training, the framework's run."""
