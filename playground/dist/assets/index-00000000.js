document.title = "Playground";
