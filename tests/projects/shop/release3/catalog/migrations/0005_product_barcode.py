from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("catalog", "0004_review")]
    operations = [
        migrations.AddField("product", "barcode", models.CharField(blank=True, default="", max_length=13)),
    ]
