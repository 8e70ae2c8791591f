from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("catalog", "0002_first_categories")]
    operations = [
        migrations.AddField("product", "stock", models.PositiveIntegerField(default=0)),
    ]
